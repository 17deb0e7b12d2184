-- Open set, lineage: share of images whose stage 1 names the leaf and every scored taxon above it
SELECT system, dataset, choices, image_id, 'open_lineage' AS metric, bool_and(correct AND leaf_correct) AS value
FROM named
GROUP BY ALL
