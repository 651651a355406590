-- Incidents: consecutive anomalous windows of one device and use case, one row with each further window and one at the end.
SELECT *
FROM tidewatch_incidents(
  windows => TABLE `placed` PARTITION BY (`use_case`, `device_id`),
  gap_ms => CAST(${gap_ms} AS BIGINT),
  on_time => DESCRIPTOR(`rowtime`),
  uid => 'incidents'
)
