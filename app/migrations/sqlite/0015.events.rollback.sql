-- Destroys every webhook, what is to be delivered, and the event log.
DROP TRIGGER link_events_limit;
DROP TRIGGER link_events_changed;
DROP TRIGGER link_events_added;
DROP TABLE webhook_deliveries;
DROP TABLE webhooks;
DROP TABLE link_limits_reached;
DROP TABLE link_expiries;
DROP TABLE link_events;
