-- Alerts: an incident's newest state last, with the severity that follows from score, duration and spread.
SELECT
  `alert_id`, `use_case`, `detector`, `device_id`, `metric`,
  TO_TIMESTAMP_LTZ(`start_ms`, 3) AS `start`, TO_TIMESTAMP_LTZ(`end_ms`, 3) AS `end`,
  `windows`, ${severity} AS `severity`, `score`, `model_version`, `baseline`,
  `top_signals`, `top_observed`, `top_expected`, `top_shares`, `technique`, `title`, `reason`,
  `kind`, `site`, `status`, `group_id`, `members`, `member_ids`, `suppressed_by`
FROM (
  SELECT ${columns} FROM `grouped`
  UNION ALL
  SELECT ${columns} FROM `unsent`
)
