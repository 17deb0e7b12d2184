-- Outcomes: share of an image's questions (in open set: of its one answer) with each outcome
WITH asked AS (
    SELECT system, dataset, choices, image_id, outcome FROM judged
    UNION ALL
    SELECT system, dataset, choices, image_id, outcome FROM named
)
SELECT system, dataset, choices, image_id, 'outcome_' || kind AS metric, avg((outcome = kind)::INTEGER) AS value
FROM asked
CROSS JOIN (SELECT unnest(['answered', 'unparsed', 'truncated', 'empty', 'refused', 'error']) AS kind)
GROUP BY ALL
