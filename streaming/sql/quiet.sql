-- The rules that keep alerts quiet, a JSON array a use case, as they are known now: each rule has its own event time.
CREATE TABLE `quiet` (
  `use_case` STRING,
  `rules` STRING,
  `valid` AS TO_TIMESTAMP_LTZ(0, 3),
  PRIMARY KEY (`use_case`) NOT ENFORCED,
  WATERMARK FOR `valid` AS `valid`
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'quiet',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'key.format' = 'json',
  'key.json.ignore-parse-errors' = 'true',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true'
)
