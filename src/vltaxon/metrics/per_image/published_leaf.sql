-- title: Leaf (published reading)
-- meaning: leaf accuracy where the benchmark's own rule reads the completions
-- unit: share
SELECT system, dataset, choices, image_id, 'published_leaf' AS metric, published_correct AS value
FROM judged
WHERE position = depth AND published_correct IS NOT NULL
