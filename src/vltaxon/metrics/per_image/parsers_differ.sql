-- title: Parsers differ
-- meaning: mean share of an image's answers that our reading and the benchmark's take for different options, or only one reads
-- unit: share
-- interval: hidden
-- zeros: hidden
-- group: main 90
SELECT system, dataset, choices, image_id, 'parsers_differ' AS metric, avg(parsers_differ::INTEGER) AS value
FROM judged
WHERE parsers_differ IS NOT NULL
GROUP BY ALL
