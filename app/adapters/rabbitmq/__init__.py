"""RabbitMQ: the event bus and its dead-letter queues."""
