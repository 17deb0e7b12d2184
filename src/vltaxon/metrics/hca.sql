-- HCA: share of images with every scored level right
SELECT system, dataset, choices, image_id, 'hca' AS metric, bool_and(correct) AS value
FROM judged
GROUP BY ALL
