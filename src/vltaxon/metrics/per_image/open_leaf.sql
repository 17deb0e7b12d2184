-- title: Open set, leaf
-- meaning: share of images whose stage 1 names the leaf
-- unit: share
-- stage: 1
-- group: main 110, as Open leaf
-- group: species 30, as Open leaf
SELECT DISTINCT system, dataset, choices, image_id, 'open_leaf' AS metric, leaf_correct AS value
FROM named
