-- One row per data set, choices and test image without a scored question: it counts in no number of these choices. Of `open_set` are
-- those that no choices ask about, which stage 1 is not scored on either.
WITH asked AS (
    SELECT dataset, choices, image_id FROM questions WHERE split = 'test' AND scored
    UNION
    SELECT dataset, 'open_set' AS choices, image_id FROM questions WHERE split = 'test' AND scored
), every AS (
    SELECT kinds.dataset, kinds.choices, images.image_id
    FROM images
    JOIN (SELECT DISTINCT dataset, choices FROM asked) AS kinds USING (dataset)
    WHERE images.split = 'test'
)
SELECT every.dataset, every.choices, every.image_id
FROM every
ANTI JOIN asked USING (dataset, choices, image_id)
