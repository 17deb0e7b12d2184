-- One row per system with a stage 1, test image and scored level: whether the level is right in the reasoning (`correct`) and
-- whether the name given is the leaf (`leaf_correct`), both compared by key.
SELECT users.system, truth.dataset, 'open_set' AS choices, truth.image_id, truth.level, leaves.outcome, leaves.completion_tokens,
    coalesce(leaves.outcome = 'answered' AND written.key = truth.key, false) AS correct,
    coalesce(leaves.outcome = 'answered' AND answered.key = truth.leaf_key, false) AS leaf_correct
FROM truth
JOIN leaves USING (dataset, image_id)
JOIN leaf_systems AS users ON users.leaf_system = leaves.system
LEFT JOIN keys AS written ON written.name = leaves.lineage[truth.level]
LEFT JOIN keys AS answered ON answered.name = leaves.answer
