package httpserver

import (
	"bytes"
	"context"
	"net/http"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// metricsBurst is how often metrics may be asked for in a row and be new each time:
// more than the Prometheuses that scrape at once.
const metricsBurst = 5

// Metrics serves what gather returns as text, or in the format with native
// histograms where Prometheus asks for it. Gathering may take some time: while it
// does, half of the connections stay free for others.
func Metrics(gather func(context.Context) ([]*dto.MetricFamily, error)) http.Handler {
	type page struct {
		text []byte
		err  error
	}
	// Our names need no escaping, so all clients get them as they are.
	formats := []expfmt.Format{expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeTextPlain)}
	pages := map[expfmt.FormatType]*Cache[page]{} // by what stays of a format whatever a client adds
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
	shares := newShares(pagesOfAddress, pagesOfAll, burst)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !shares.allow(r) {
			tooMany(w)
			return
		}
		// promhttp would bring compression along, which nobody needs for some KB.
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
			_, _ = w.Write(p.text) // an error is the client's, which has left
		}
	})
}
