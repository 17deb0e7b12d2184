-- title: Accuracy, answered
-- meaning: mean share of an image's answered questions that are right; images without an answer left out
-- unit: share
SELECT system, dataset, choices, image_id, 'answered_accuracy' AS metric, avg(correct::INTEGER) AS value
FROM judged
WHERE outcome = 'answered'
GROUP BY ALL
