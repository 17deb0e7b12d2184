-- title: Outcomes
-- meaning: share of an image's questions (in open set: of its one answer) with each outcome
-- unit: share
-- interval: hidden
-- metric: outcome_answered
-- group: main 80, as Answered
-- group: main 130, stage 1, as Stage 1 answered
-- metric: outcome_unparsed
-- zeros: hidden
-- group: main 81, as Unparsed
-- group: main 131, stage 1, as Stage 1 unparsed
-- metric: outcome_truncated
-- zeros: hidden
-- warn: 0.01 were cut at the token limit and count as wrong; raise max_new_tokens.
-- group: main 82, as Truncated
-- group: main 132, stage 1, as Stage 1 truncated
-- metric: outcome_empty
-- zeros: hidden
-- group: main 83, as Empty
-- group: main 133, stage 1, as Stage 1 empty
-- metric: outcome_refused
-- zeros: hidden
-- group: main 84, as Refused
-- group: main 134, stage 1, as Stage 1 refused
-- metric: outcome_error
-- zeros: hidden
-- group: main 85, as Error
-- group: main 135, stage 1, as Stage 1 error
WITH asked AS (
    SELECT system, dataset, choices, image_id, outcome FROM judged
    UNION ALL
    SELECT system, dataset, choices, image_id, outcome FROM named
)
SELECT system, dataset, choices, image_id, 'outcome_' || kind AS metric, avg((outcome = kind)::INTEGER) AS value
FROM asked
CROSS JOIN (SELECT unnest(['answered', 'unparsed', 'truncated', 'empty', 'refused', 'error']) AS kind)
GROUP BY ALL
