-- title: Level accuracy
-- meaning: share of images right at a level, among those that have it
-- unit: share
SELECT system, dataset, choices, image_id, 'level_accuracy' AS metric, level, correct AS value
FROM judged
