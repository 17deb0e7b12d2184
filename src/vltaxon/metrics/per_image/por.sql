-- title: POR
-- meaning: mean share of an image's scored levels that are right
-- unit: share
-- group: main 40
SELECT system, dataset, choices, image_id, 'por' AS metric, avg(correct::INTEGER) AS value
FROM judged
GROUP BY ALL
