-- The records of the topic ${name} that cannot be used, with the reason and the original bytes.
SELECT
  '${name}' AS `source`, `kafka_partition`, `kafka_offset`, `ingested_at`, `reason`,
  COALESCE(`detail`, CONCAT('${time} is ', CAST(`${time}` AS STRING))) AS `detail`,
  `device_id`, tidewatch_base64(`original`) AS `original`
FROM `${name}_records`
WHERE `reason` IS NOT NULL
