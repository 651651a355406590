-- Rows of ${name} as finished Parquet files, exactly once by checkpoint; streaming/committer.py takes them into Delta.
CREATE TABLE `landing_${name}` (
  ${columns},
  `date` STRING
) PARTITIONED BY (`date`) WITH (
  'connector' = 'filesystem',
  'path' = '${path}',
  'format' = 'parquet',
  'parquet.compression' = 'ZSTD',
  'parquet.compression.codec.zstd.level' = '1',
  'parquet.enable.dictionary' = 'false',
  'parquet.write.int64.timestamp' = 'true',
  'parquet.timestamp.time.unit' = 'micros',
  'parquet.utc-timezone' = 'true',
  'sink.rolling-policy.rollover-interval' = '1 h'
)
