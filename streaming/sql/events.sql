-- The possible events of the topic ${name}: what windows and the lake see.
SELECT ${columns}, `external`, `ingested_at`, `kafka_partition`, `kafka_offset`, `rowtime`
FROM `${name}_records`
WHERE `reason` IS NULL
