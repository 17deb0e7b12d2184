-- title: Leaf
-- meaning: share of images with the deepest question right
-- unit: share
-- group: main 20
-- group: species 20
-- group: sweep 20
SELECT system, dataset, choices, image_id, 'leaf' AS metric, correct AS value
FROM judged
WHERE position = depth
