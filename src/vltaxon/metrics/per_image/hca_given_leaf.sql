-- title: HCA(L)
-- meaning: HCA among the images with the leaf right
-- unit: share
-- none: no leaf right
-- group: main 30
SELECT system, dataset, choices, image_id, 'hca_given_leaf' AS metric, bool_and(correct) AS value
FROM judged
GROUP BY ALL
HAVING bool_or(correct AND position = depth)
