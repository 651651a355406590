-- One row a device, detector and window: its metrics side by side, the windows before, and the baselines and the model that
-- held at its end; without a model it goes no further. State of windows of another kind has another uid: no job resumes from it.
SELECT
  `use_case`, `detector`, `device_id`,
  tidewatch_time(`begin_ms`) AS `window_start`, tidewatch_time(`end_ms`) AS `window_end`,
  `end_ms` AS `window_end_ms`, `rowtime`, `asked`, `metric`, `inputs`, `source`, `baseline`
FROM tidewatch_match(
  windows => TABLE `windows` PARTITION BY (`bucket`),
  baselines => TABLE `baselines` PARTITION BY (`bucket`),
  told => TABLE `told` PARTITION BY (`bucket`),
  on_time => DESCRIPTOR(`rowtime`),
  uid => 'match-${windows}'
)
