-- Outages in the columns of `grouped`; the rule that keeps one quiet is the one that holds in its newest minute.
SELECT
  o.`alert_id`, o.`use_case`, '*' AS `device_id`, CAST(0 AS BIGINT) AS `members`, CAST(NULL AS ARRAY<STRING>) AS `member_ids`,
  '' AS `group_id`, '${detector}' AS `detector`, '' AS `metric`, o.`start` AS `start_ms`, o.`end` AS `end_ms`,
  (o.`end` - o.`start`) / 60000 + 1 AS `windows`, 'critical' AS `severity`, CAST(1 AS DOUBLE) AS `score`,
  '' AS `model_version`, '' AS `baseline`, CAST(NULL AS ARRAY<STRING>) AS `top_signals`,
  CAST(NULL AS ARRAY<DOUBLE>) AS `top_observed`, CAST(NULL AS ARRAY<DOUBLE>) AS `top_expected`, CAST(NULL AS ARRAY<DOUBLE>) AS `top_shares`,
  '${technique}' AS `technique`, o.`title`, o.`reason`, '' AS `kind`, '' AS `site`,
  tidewatch_suppressed_by('${detector}', '*', '', '', o.`end` - 60000, o.`end`, q.`rules`) AS `suppressed_by`, o.`status`
FROM `outages` AS o
LEFT JOIN `quiet` FOR SYSTEM_TIME AS OF o.`rowtime` AS q ON o.`use_case` = q.`use_case`
