-- title: Open set, level
-- meaning: share of images whose stage 1 reasoning names the right taxon of a level
-- unit: share
-- stage: 1
SELECT system, dataset, choices, image_id, 'open_level_accuracy' AS metric, level, correct AS value
FROM named
