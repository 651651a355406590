-- Incidents: one row with each further anomalous window, the newest state last.
SELECT
  CONCAT(`use_case`, ':', `device_id`, ':', CAST(`start_ms` AS STRING)) AS `alert_id`,
  `use_case`, `detector`, `device_id`, `metric`,
  TO_TIMESTAMP_LTZ(`start_ms`, 3) AS `start`, TO_TIMESTAMP_LTZ(`end_ms`, 3) AS `end`,
  `windows`, `severity`, `score`, `model_version`, `baseline`,
  `top_signals`, `top_observed`, `top_expected`, `top_shares`, `technique`, `title`, `reason`
FROM tidewatch_incidents(
  windows => TABLE `anomalous` PARTITION BY (`use_case`, `device_id`),
  gap_ms => CAST(${gap_ms} AS BIGINT),
  on_time => DESCRIPTOR(`rowtime`),
  uid => 'incidents'
)
