package tidewatch.stream;

import java.util.List;
import java.util.Set;

import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.DecodingFormat;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DeserializationFormatFactory;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;

/**
 * The format {@code tidewatch-avro}: schemaless Avro bodies into rows that say themselves what is wrong with them.
 *
 * <p>Beside the contract's fields a table may have {@code fault STRING} (why the record cannot be used; null: it can),
 * {@code detail STRING}, {@code original BYTES} (the record's value) and {@code external BOOLEAN} (see {@link tidewatch.events.Networks}).
 */
public final class AvroFormatFactory implements DeserializationFormatFactory {
    static final ConfigOption<String> SCHEMA = ConfigOptions.key("schema").stringType().noDefaultValue()
            .withDescription("The contract: an Avro schema whose fields may have min, max, values, min_length, max_length.");
    static final ConfigOption<String> INSIDE = ConfigOptions.key("inside").stringType().defaultValue("")
            .withDescription("Networks that count as inside, comma separated; empty: `external` is null.");

    @Override
    public String factoryIdentifier() {
        return "tidewatch-avro";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(SCHEMA);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of(INSIDE);
    }

    @Override
    public DecodingFormat<DeserializationSchema<RowData>> createDecodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        FactoryUtil.validateFactoryOptions(this, options);
        String schema = options.get(SCHEMA);
        List<String> inside = AvroDecoder.split(options.get(INSIDE));
        return new DecodingFormat<>() {
            @Override
            public DeserializationSchema<RowData> createRuntimeDecoder(DynamicTableSource.Context source, DataType physical) {
                DataType produced = DataTypes.of(physical.getLogicalType());
                return new AvroDecoder(schema, inside, (RowType) physical.getLogicalType(), source.createTypeInformation(produced));
            }

            @Override
            public ChangelogMode getChangelogMode() {
                return ChangelogMode.insertOnly();
            }
        };
    }
}
