-- Leaf: share of images with the deepest question right
SELECT system, dataset, choices, image_id, 'leaf' AS metric, correct AS value
FROM judged
WHERE position = depth
