-- One row per system and scored question of a test image. `position` counts the image's scored questions from the root, `depth` is
-- how many there are; a missing rank has no question and leaves no gap. Only an answered question can be right.
WITH asked AS (
    SELECT dataset, choices, image_id, question_id, level, answer_index, len(options) AS options,
        row_number() OVER (PARTITION BY dataset, choices, image_id ORDER BY level) AS position,
        count(*) OVER (PARTITION BY dataset, choices, image_id) AS depth
    FROM questions
    WHERE split = 'test' AND scored
)
SELECT answers.system, asked.dataset, asked.choices, asked.image_id, asked.level, asked.position, asked.depth, asked.options,
    answers.outcome, answers.completion_tokens,
    coalesce(answers.outcome = 'answered' AND answers.answer_index = asked.answer_index, false) AS correct
FROM asked
JOIN answers USING (dataset, choices, question_id)
