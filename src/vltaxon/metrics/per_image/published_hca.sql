-- title: HCA (published reading)
-- meaning: HCA where the benchmark's own rule reads the completions, the first of A, B, C, D anywhere in them
-- unit: share
SELECT system, dataset, choices, image_id, 'published_hca' AS metric, bool_and(published_correct) AS value
FROM judged
WHERE published_correct IS NOT NULL
GROUP BY ALL
