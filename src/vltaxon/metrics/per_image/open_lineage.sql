-- title: Open set, lineage
-- meaning: share of images whose stage 1 names the leaf and, in its reasoning, every scored taxon above it
-- unit: share
-- stage: 1
-- group: main 120, as Open lineage
WITH placed AS (
    SELECT *, level = max(level) OVER (PARTITION BY system, dataset, choices, image_id) AS deepest
    FROM named
)
SELECT system, dataset, choices, image_id, 'open_lineage' AS metric, bool_and(CASE WHEN deepest THEN leaf_correct ELSE correct END) AS value
FROM placed
GROUP BY ALL
