-- The anomalous windows, each with its device's kind and site ('' if the inventory does not know it), and the rule that
-- keeps it quiet, if one does.
SELECT
  a.*, COALESCE(d.`kind`, '') AS `kind`, COALESCE(d.`site`, '') AS `site`,
  tidewatch_suppressed_by(
    a.`detector`, a.`device_id`, COALESCE(d.`kind`, ''), COALESCE(d.`site`, ''), a.`window_start_ms`, a.`window_end_ms`, q.`rules`
  ) AS `suppressed_by`
FROM `anomalous` AS a
LEFT JOIN `devices` FOR SYSTEM_TIME AS OF a.`rowtime` AS d ON a.`device_id` = d.`device_id`
LEFT JOIN `quiet` FOR SYSTEM_TIME AS OF a.`rowtime` AS q ON a.`use_case` = q.`use_case`
