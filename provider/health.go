package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/httpserver"
)

// healthTimeout is how long a process that works may take to say its version.
const healthTimeout = 3 * time.Second

// Health answers the probes of the kubelet.
//
//	/healthz  200 if a Version call over the socket at endpoint is answered; a
//	          process that is stuck gets 503, and is then started again
//	/readyz   200 while ready returns true
//
// The body says in a line what is wrong. Results are cached for a second, as each
// Version call takes a new connection.
func Health(endpoint string, ready func() bool) http.Handler {
	return health(endpoint, ready, healthTimeout)
}

func health(endpoint string, ready func() bool, timeout time.Duration) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", httpserver.Health(func(ctx context.Context) error {
		return callVersion(ctx, endpoint, timeout)
	}))
	mux.Handle("GET /readyz", httpserver.Health(func(context.Context) error {
		if !ready() {
			return errors.New("the socket is not served by this process, or not any more")
		}
		return nil
	}))
	return mux
}

func callVersion(ctx context.Context, endpoint string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// A connection of its own each time, as a kept one would still lead to a
	// socket that has been replaced since.
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := v1alpha1.NewCSIDriverProviderClient(conn).
		Version(ctx, &v1alpha1.VersionRequest{Version: apiVersion}); err != nil {
		return fmt.Errorf("no answer to Version on %s: %s", endpoint, status.Convert(err).Message())
	}
	return nil
}
