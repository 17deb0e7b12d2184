-- title: S-POR (run)
-- meaning: longest unbroken run of right levels, as a share of all (TARA, eq. 7)
-- unit: share
-- group: main 60
WITH runs AS (
    SELECT *, count(*) FILTER (WHERE NOT correct) OVER (
        PARTITION BY system, dataset, choices, image_id ORDER BY position
    ) AS run
    FROM judged
), lengths AS (
    SELECT system, dataset, choices, image_id, run, max(depth) AS depth, count(*) FILTER (WHERE correct) AS length
    FROM runs
    GROUP BY ALL
)
SELECT system, dataset, choices, image_id, 'strict_por_run' AS metric, max(length) / max(depth) AS value
FROM lengths
GROUP BY ALL
