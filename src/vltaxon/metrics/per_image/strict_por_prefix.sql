-- title: S-POR (prefix)
-- meaning: levels right from the root down to the first wrong one, as a share of all (the published code)
-- unit: share
-- group: main 50
SELECT system, dataset, choices, image_id, 'strict_por_prefix' AS metric,
    coalesce(min(position) FILTER (WHERE NOT correct) - 1, max(depth)) / max(depth) AS value
FROM judged
GROUP BY ALL
