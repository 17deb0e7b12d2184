-- title: Open set, HCA(L)
-- meaning: open set, lineage, among the images whose stage 1 names the leaf
-- unit: share
-- stage: 1
-- none: no leaf right
WITH placed AS (
    SELECT *, level = max(level) OVER (PARTITION BY system, dataset, choices, image_id) AS deepest
    FROM named
    WHERE leaf_correct
)
SELECT system, dataset, choices, image_id, 'open_lineage_given_leaf' AS metric, bool_and(deepest OR correct) AS value
FROM placed
GROUP BY ALL
