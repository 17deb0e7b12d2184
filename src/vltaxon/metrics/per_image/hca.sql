-- title: HCA
-- meaning: share of images with every scored level right
-- unit: share
-- group: main 10
-- group: species 10
-- group: sweep 10
SELECT system, dataset, choices, image_id, 'hca' AS metric, bool_and(correct) AS value
FROM judged
GROUP BY ALL
