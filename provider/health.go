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

// healthTimeout bounds the Version call of a health check.
const healthTimeout = 3 * time.Second

// Health serves the probes of the kubelet.
//
//	/healthz  200 if a Version call over the socket at endpoint succeeds, otherwise
//	          503, so that the kubelet restarts a process that hangs
//	/readyz   200 while ready returns true
//
// The body of a failure is one line with the problem. Results are cached for a second, because each Version call opens
// a new connection.
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
			return errors.New("this process does not serve the socket")
		}
		return nil
	}))
	return mux
}

func callVersion(ctx context.Context, endpoint string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// A reused connection would still lead to a socket that has been replaced.
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := v1alpha1.NewCSIDriverProviderClient(conn).
		Version(ctx, &v1alpha1.VersionRequest{Version: apiVersion}); err != nil {
		return fmt.Errorf("calling Version on %s: %s", endpoint, status.Convert(err).Message())
	}
	return nil
}
