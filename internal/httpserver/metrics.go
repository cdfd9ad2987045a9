package httpserver

import (
	"bytes"
	"context"
	"net/http"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// metricsBurst is the number of scrapes in a row that get new metrics. It is more than the Prometheus servers that
// scrape at the same time.
const metricsBurst = 5

// Metrics serves the metrics that gather returns, as text, or in the format with native histograms if Prometheus
// accepts it. Requests that wait for gather use at most half of the connections.
func Metrics(gather func(context.Context) ([]*dto.MetricFamily, error)) http.Handler {
	type page struct {
		text []byte
		err  error
	}
	// Our names need no escaping, so that escaping schemes make no difference.
	formats := []expfmt.Format{expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeTextPlain)}
	pages := map[expfmt.FormatType]*Cache[page]{} // by type, without the parameters of the client
	for _, format := range formats {
		pages[format.FormatType()] = NewCache(metricsBurst, maxConns/2, func(ctx context.Context) (p page) {
			families, err := gather(ctx)
			if err != nil {
				return page{err: err}
			}
			var b bytes.Buffer
			encoder := expfmt.NewEncoder(&b, format)
			for _, family := range families {
				if err := encoder.Encode(family); err != nil {
					return page{err: err}
				}
			}
			return page{text: b.Bytes()}
		})
	}
	shares := newShares(responsesOfAddress, responsesOfAll, burst)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !shares.allow(r) {
			tooMany(w)
			return
		}
		// promhttp is not used: it cannot serve a cached result, and it compresses, which costs CPU for a few KB.
		format := expfmt.NegotiateAccept(r.Header, formats...).FormatType()
		p, err := pages[format].Get(r.Context())
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case p.err != nil:
			http.Error(w, p.err.Error(), http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", string(expfmt.NewFormat(format)))
			w.Header().Set("Content-Length", strconv.Itoa(len(p.text)))
			_, _ = w.Write(p.text) // fails if the client has closed the connection
		}
	})
}
