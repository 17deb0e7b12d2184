-- Level accuracy: share of images right at a level, among those that have it
SELECT system, dataset, choices, image_id, 'level_accuracy' AS metric, level, correct AS value
FROM judged
