-- Open set, lineage given leaf: share of images with the whole lineage right, among those whose stage 1 names the leaf
WITH placed AS (
    SELECT *, level = max(level) OVER (PARTITION BY system, dataset, choices, image_id) AS deepest
    FROM named
)
SELECT system, dataset, choices, image_id, 'open_lineage_given_leaf' AS metric, bool_and(deepest OR correct) AS value
FROM placed
GROUP BY ALL
HAVING bool_or(leaf_correct)
