-- title: Chance
-- meaning: what a random choice among the options of a level would score
-- unit: share
SELECT system, dataset, choices, image_id, 'chance' AS metric, level, 1 / options AS value
FROM judged
