package tidewatch.pinot;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;

import com.fasterxml.jackson.databind.ObjectMapper;

import org.apache.pinot.segment.local.recordtransformer.CompositeTransformer;
import org.apache.pinot.segment.local.utils.IngestionUtils;
import org.apache.pinot.spi.config.table.TableConfig;
import org.apache.pinot.spi.data.Schema;
import org.apache.pinot.spi.data.readers.GenericRow;
import org.apache.pinot.spi.stream.StreamMessageDecoder;
import org.apache.pinot.spi.utils.JsonUtils;

/** What Pinot makes of records before it indexes them: a record a line (base64) in, its values and which are null out; null: skipped. */
public final class Rows {
    private static final String DECODER = "stream.kafka.decoder.";

    @SuppressWarnings("unchecked")
    public static void main(String[] files) throws Exception {
        Schema schema = Schema.fromString(Files.readString(Path.of(files[0])));
        TableConfig table = JsonUtils.stringToObject(Files.readString(Path.of(files[1])), TableConfig.class);
        Map<String, String> properties = new HashMap<>();
        Map<String, String> stream = table.getIndexingConfig().getStreamConfigs();
        stream.forEach((k, v) -> properties.put(k.replace(DECODER + "prop.", ""), v));
        StreamMessageDecoder<byte[]> decoder =
                (StreamMessageDecoder<byte[]>) Class.forName(stream.get(DECODER + "class.name")).getDeclaredConstructor().newInstance();
        decoder.init(properties, IngestionUtils.getFieldsForRecordExtractor(table.getIngestionConfig(), schema), table.getTableName());
        CompositeTransformer transformer = CompositeTransformer.getDefaultTransformer(table, schema);
        ObjectMapper json = new ObjectMapper();
        GenericRow reused = new GenericRow();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            reused.clear();
            // as Pinot has it: a part of what it fetched
            byte[] record = Base64.getDecoder().decode(line);
            byte[] batch = new byte[record.length + 6];
            System.arraycopy(record, 0, batch, 3, record.length);
            GenericRow row = decoder.decode(batch, 3, record.length, reused);
            if (row == null) {
                System.out.println("null");
                continue;
            }
            row = transformer.transform(row);
            Map<String, Object> values = new TreeMap<>();
            for (String column : schema.getPhysicalColumnNames()) {
                values.put(column, row.getValue(column));
            }
            System.out.println(json.writeValueAsString(new Object[] {values, new TreeSet<>(row.getNullValueFields())}));
        }
    }
}
