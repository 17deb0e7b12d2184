-- Open set, leaf: share of images whose stage 1 names the leaf
SELECT DISTINCT system, dataset, choices, image_id, 'open_leaf' AS metric, leaf_correct AS value
FROM named
