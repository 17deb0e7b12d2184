-- title: Tokens
-- meaning: mean length of a completion, of stage 1 (open set) or of an answer
-- unit: count
-- interval: hidden
-- group: main 100
-- group: main 140, stage 1, as Stage 1 tokens
SELECT system, dataset, choices, image_id, 'completion_tokens' AS metric, avg(completion_tokens) AS value
FROM (
    SELECT system, dataset, choices, image_id, completion_tokens FROM judged
    UNION ALL
    SELECT system, dataset, choices, image_id, completion_tokens FROM named
)
WHERE completion_tokens IS NOT NULL
GROUP BY ALL
