-- One row per system and scored question of a test image. `position` counts the image's scored questions from the root, `depth` is
-- how many there are; a missing rank has no question and leaves no gap. Only an answered question can be right. What the benchmark's
-- rule reads in the same completion is `published_correct`, and `parsers_differ` from it or not; both are null where no model writes
-- (lookup, similarity, chance). What a model was not asked, for want of a name from stage 1, it got wrong by either reading.
WITH asked AS (
    SELECT dataset, choices, image_id, question_id, level, answer_index, len(options) AS options,
        row_number() OVER (PARTITION BY dataset, choices, image_id ORDER BY level) AS position,
        count(*) OVER (PARTITION BY dataset, choices, image_id) AS depth
    FROM questions
    WHERE split = 'test' AND scored
), given AS (
    SELECT *, finish_reason IS NOT NULL AS by_model,
        CASE WHEN outcome = 'answered' THEN answer_index END AS strict_index
    FROM answers
)
SELECT given.system, asked.dataset, asked.choices, asked.image_id, asked.level, asked.position, asked.depth, asked.options,
    given.outcome, given.completion_tokens,
    coalesce(given.strict_index = asked.answer_index, false) AS correct,
    CASE WHEN given.by_model THEN coalesce(given.published_index = asked.answer_index, false) END AS published_correct,
    CASE WHEN given.by_model THEN given.strict_index IS DISTINCT FROM given.published_index END AS parsers_differ
FROM asked
JOIN given USING (dataset, choices, question_id)
