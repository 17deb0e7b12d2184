-- HCA(L): HCA among the images with the leaf right
SELECT system, dataset, choices, image_id, 'hca_given_leaf' AS metric, bool_and(correct) AS value
FROM judged
GROUP BY ALL
HAVING bool_or(correct AND position = depth)
