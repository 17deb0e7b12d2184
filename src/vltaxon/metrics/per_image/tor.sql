-- title: TOR
-- meaning: share of adjacent pairs of levels that are both right; 0 where there is one level only
-- unit: share
-- group: main 70
WITH pairs AS (
    SELECT system, dataset, choices, image_id, depth,
        correct AND coalesce(lag(correct) OVER (PARTITION BY system, dataset, choices, image_id ORDER BY position), false) AS both_correct
    FROM judged
)
SELECT system, dataset, choices, image_id, 'tor' AS metric, coalesce(sum(both_correct::INTEGER) / nullif(max(depth) - 1, 0), 0) AS value
FROM pairs
GROUP BY ALL
