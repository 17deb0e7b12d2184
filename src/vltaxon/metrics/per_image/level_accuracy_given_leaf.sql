-- title: Level accuracy, leaf right
-- meaning: share of images right at a level, among those with the leaf right
-- unit: share
-- none: no leaf right
SELECT system, dataset, choices, image_id, 'level_accuracy_given_leaf' AS metric, level, correct AS value
FROM judged
QUALIFY bool_or(correct AND position = depth) OVER (PARTITION BY system, dataset, choices, image_id)
