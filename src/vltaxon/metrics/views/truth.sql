-- One row per test image and scored level: the true taxon, its key, and the key of the image's leaf (the deepest taxon that exists).
WITH asked AS (
    SELECT DISTINCT dataset, image_id, level FROM questions WHERE split = 'test' AND scored
), leaf AS (
    SELECT dataset, leaf, arg_max(taxon, level) AS name FROM taxa WHERE taxon IS NOT NULL GROUP BY dataset, leaf
)
SELECT asked.dataset, asked.image_id, asked.level, taxa.taxon, keys.key, leaf_keys.key AS leaf_key
FROM asked
JOIN images USING (dataset, image_id)
JOIN taxa ON taxa.dataset = images.dataset AND taxa.leaf = images.leaf AND taxa.level = asked.level
JOIN keys ON keys.name = taxa.taxon
JOIN leaf ON leaf.dataset = images.dataset AND leaf.leaf = images.leaf
JOIN keys AS leaf_keys ON leaf_keys.name = leaf.name
