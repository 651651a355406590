-- Incidents with their groups, and the groups themselves as incidents of the device '*'.
SELECT
  CONCAT(`use_case`, ':', `device_id`, ':', CAST(`incident`.`start_ms` AS STRING)) AS `alert_id`, `use_case`, `device_id`, `members`, `member_ids`,
  CASE WHEN `group_start_ms` IS NULL OR `device_id` = '*' THEN '' ELSE CONCAT(`use_case`, ':*:', CAST(`group_start_ms` AS STRING)) END AS `group_id`,
  `incident`.`detector` AS `detector`, `incident`.`metric` AS `metric`, `incident`.`start_ms` AS `start_ms`, `incident`.`end_ms` AS `end_ms`,
  `incident`.`windows` AS `windows`, `incident`.`severity` AS `severity`, `incident`.`score` AS `score`,
  `incident`.`model_version` AS `model_version`, `incident`.`baseline` AS `baseline`, `incident`.`top_signals` AS `top_signals`,
  `incident`.`top_observed` AS `top_observed`, `incident`.`top_expected` AS `top_expected`, `incident`.`top_shares` AS `top_shares`,
  `incident`.`technique` AS `technique`, `incident`.`title` AS `title`, `incident`.`reason` AS `reason`,
  `incident`.`kind` AS `kind`, `incident`.`site` AS `site`, `incident`.`suppressed_by` AS `suppressed_by`, `incident`.`status` AS `status`
FROM tidewatch_groups(
  incidents => TABLE `incidents` PARTITION BY (`use_case`),
  devices => CAST(${devices} AS INT),
  within_ms => CAST(${within_ms} AS BIGINT),
  named => CAST(${named} AS INT),
  on_time => DESCRIPTOR(`rowtime`),
  uid => 'groups'
)
