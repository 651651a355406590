-- The inventory as it is known now, whatever the event time: a replay of old events must know its devices, too.
CREATE TABLE `devices` (
  `device_id` STRING,
  `kind` STRING,
  `site` STRING,
  `valid` AS TO_TIMESTAMP_LTZ(0, 3),
  PRIMARY KEY (`device_id`) NOT ENFORCED,
  WATERMARK FOR `valid` AS `valid`
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'devices',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'key.format' = 'json',
  'key.json.ignore-parse-errors' = 'true',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true'
)
