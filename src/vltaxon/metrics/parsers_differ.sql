-- Parsers differ: share of an image's answers that the benchmark's first-letter rule reads otherwise than the strict parser
SELECT system, dataset, choices, image_id, 'parsers_differ' AS metric,
    avg((completion IS NOT NULL AND answer_index IS DISTINCT FROM published_index)::INTEGER) AS value
FROM answers
JOIN judged USING (system, dataset, choices, image_id, level)
GROUP BY ALL
